-- p038 quotes a benchmark question so that decontamination has something to find.
select seed_id from {{ ref('seeds_clean') }} where seed_id = 'p038'
