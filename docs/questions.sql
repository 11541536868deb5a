-- What is behind? How long ago a run last compared the source with what is stored, and what still lacks a vector.
select collection, looked_at, newest_source_at, published_at, pending, pending_elsewhere, dead_letters,
       cast(floor(extract(epoch from now() - looked_at) / 3600) as bigint) as hours_since_a_look
from collections
order by looked_at;

-- How far is each candidate? The share of chunks that have a vector, and whether it passed its gates.
select collection, generation, model, state, vectors, chunks, vectors * 100.0 / nullif(chunks, 0) as covered_percent, passed
from generations
where role <> 'left'
order by collection, role, generation;

-- What did each month cost, and what of it was lost to runs that failed?
select collection, cast(date_trunc('month', began) as date) as month, currency, sum(cost) as cost,
       sum(cost) filter (where status in ('failed', 'cancelled')) as cost_of_failures, count(*) as runs
from runs
where cost is not null
group by 1, 2, 3
order by 1, 2, 3;

-- Which collections will exceed their budget this month, if the rest of it is as what has passed?
select collection, month_cost, monthly_budget, currency,
       month_cost * 30 / greatest(extract(day from as_of), 1) as expected
from collections
where monthly_budget is not null and month_cost * 30 / greatest(extract(day from as_of), 1) > monthly_budget
order by collection;

-- Where does the time of runs go, on average of the last 30 days?
select s.collection, s.stage, count(*) as runs, avg(s.seconds) as seconds, avg(s.cpu_seconds) as cpu_seconds, sum(s.cost) as cost
from stages s
join runs r on r.collection = s.collection and r.run_id = s.run_id
where r.began > now() - interval '30 days'
group by s.collection, s.stage
order by s.collection, avg(s.seconds) desc nulls last, s.stage;

-- Is the last run slower than usual? Its tokens a second beside the median of the twenty before it.
with measured as (
    select collection, run_id, tokens_per_second, row_number() over (partition by collection order by run_id desc) as back
    from runs
    where tokens_per_second > 0
)
select n.collection, n.run_id, n.tokens_per_second,
       (select percentile_cont(0.5) within group (order by b.tokens_per_second)
        from measured b where b.collection = n.collection and b.back between 2 and 21) as usual
from measured n
where n.back = 1
order by n.collection;

-- How much did reuse spare? Chunks that were written, and the share that went through no model of their own, by week.
select collection, cast(date_trunc('week', began) as date) as week, sum(chunks_written) as chunks_written,
       sum(chunks_reused) * 100.0 / nullif(sum(chunks_written), 0) as reused_percent, sum(tokens) as tokens
from runs
where chunks_written is not null
group by 1, 2
order by 1, 2;

-- Which gates fail, how often, and what did they find the last time?
select collection, gate, count(*) filter (where not passed) as failed, count(*) as judged, max(judged_at) as last_judged_at,
       (array_agg(value order by judged_at desc))[1] as last_value, (array_agg(threshold order by judged_at desc))[1] as last_threshold
from gates
group by collection, gate
having count(*) filter (where not passed) > 0
order by failed desc, collection, gate;

-- What could not be read or embedded, by reason, and since when?
select collection, stage, reason, count(*) as letters, sum(inputs) as inputs, min(first_seen) as since
from dead_letters
group by collection, stage, reason
order by inputs desc, collection, reason;

-- Who decided what, and why? Promotions, rollbacks and what undid them.
select v.collection, v.published_at, v.action, v.who, v.why, v.generation, v.version, b.generation as generation_before,
       b.version as version_before
from versions v
left join versions b on b.collection = v.collection and b.epoch = v.epoch - 1
where v.action in ('promote', 'rollback', 'resume')
order by v.published_at;
