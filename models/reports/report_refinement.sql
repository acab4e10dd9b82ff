-- What refinement changed. A step is a line, or a sentence that starts with a word of reasoning.
with compared as (
    select
        method,
        answer,
        answer_before,
        length(answer) as length_after,
        length(answer_before) as length_before,
        len(regexp_extract_all(lower(answer), '\b(because|therefore|so|hence|thus|first|then|since)\b|因为|所以|因此')) as steps_after,
        len(regexp_extract_all(lower(answer_before), '\b(because|therefore|so|hence|thus|first|then|since)\b|因为|所以|因此')) as steps_before
    from {{ ref('qa_refined') }}
)
select
    method,
    count(*) as pairs,
    round(avg((answer <> answer_before)::int), 4) as share_changed,
    round(avg(length_before), 1) as raw_chars,
    round(avg(length_after), 1) as refined_chars,
    round(avg(steps_before), 3) as raw_steps,
    round(avg(steps_after), 3) as refined_steps,
    round(avg((length_before < 15)::int), 4) as raw_too_short,
    round(avg((length_after < 15)::int), 4) as refined_too_short
from compared
group by method
order by method
