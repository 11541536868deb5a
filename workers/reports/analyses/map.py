"""map: a place in the plane for every chunk."""

from workers.reports.analysis import Findings, Study


def study_map(study: Study) -> Findings:
    """How much of the atlas and of the rows there is to see."""
    return Findings({"landmarks": study.atlas.size, "rows": study.rows.count_rows(), "clusters": len(study.atlas.names)})
