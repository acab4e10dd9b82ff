-- lm-eval's file is one object: subject → one text of several questions, each
--   Q: question\n(A) … (B) … (C) … (D) …\nA: Let's think step by step. … The answer is (X).
-- The reasoning and the odd question with five choices are left out.
with subjects as (
    select text, unnest(json_keys(text)) as subject
    from {{ source('mmlu_cot') }}
),
chunks as (
    select
        subject,
        unnest(regexp_split_to_array(json_extract_string(text, '$.' || subject), '\n\nQ: ')) as chunk
    from subjects
),
parsed as (
    select
        subject,
        regexp_extract(
            chunk,
            '^(.*?)\n\(A\) (.*?)\s+\(B\) (.*?)\s+\(C\) (.*?)\s+\(D\) (.*?)\nA: .*The answer is \(([A-D])\)',
            ['question', 'a', 'b', 'c', 'd', 'answer'],
            's'
        ) as fields
    from chunks
)
select
    'mmlu-dev/' || subject || '/' || md5(trim(fields.question) || fields.a || fields.b)[:8] as question_id,
    'mmlu_dev' as benchmark,
    subject,
    trim(fields.question) as question,
    [trim(fields.a), trim(fields.b), trim(fields.c), trim(fields.d)] as choices,
    ascii(fields.answer) - ascii('A') as answer,
    'en' as lang,
    case when md5(trim(fields.question))[:1] < '8' then 'probe' else 'eval' end as part
from parsed
where fields.answer <> ''
qualify row_number() over (partition by subject, fields.question, fields.a, fields.b order by fields.answer) = 1
