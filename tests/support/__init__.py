"""What tests are made of: servers, proxies and clusters, processes that die on time, faults, and models small enough to write down."""
