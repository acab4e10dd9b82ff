select probe_questions.question_id
from {{ ref('probe_questions') }} as probe_questions
join {{ ref('eval_questions') }} as eval_questions on eval_questions.question_id = probe_questions.question_id
