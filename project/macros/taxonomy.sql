{# The taxonomy in SQL and in prompts. The labels themselves are vars of the project. #}

{# True where the discipline is one of science, technology, engineering, mathematics and medicine. #}
{% macro is_stem(column) -%}
{{ column }} in ({% for name in var('stem_disciplines') %}'{{ name }}'{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}

{# All labels, for a prompt. #}
{% macro discipline_list() -%}
{{ (var('stem_disciplines') + var('nonstem_disciplines')) | join(', ') }}
{%- endmacro %}

{# All labels as SQL rows. #}
{% macro discipline_array() -%}
[{% for name in var('stem_disciplines') + var('nonstem_disciplines') %}'{{ name }}'{{ ', ' if not loop.last }}{% endfor %}]
{%- endmacro %}

{# Subject of a benchmark → discipline. #}
{% macro subject_discipline(column) -%}
case
    when regexp_matches({{ column }}, 'math|algebra|statistics|formal_logic') then 'mathematics'
    when regexp_matches({{ column }}, 'computer|machine_learning') then 'computer_science'
    when regexp_matches({{ column }}, 'engineering') then 'engineering'
    when regexp_matches({{ column }}, 'physics') then 'physics'
    when regexp_matches({{ column }}, 'chemistry') then 'chemistry'
    when regexp_matches({{ column }}, 'medic|clinical|anatomy|virology|nutrition|aging|sexuality') then 'medicine'
    when regexp_matches({{ column }}, 'biology') then 'biology'
    when regexp_matches({{ column }}, 'astronomy|geography') then 'earth_science'
    when regexp_matches({{ column }}, 'history|prehistory') then 'history'
    when regexp_matches({{ column }}, 'economics|econometrics|accounting|management|marketing|business') then 'economics'
    when regexp_matches({{ column }}, 'law|jurisprudence|government|policy|politics|security_studies|sociology|public_relations|moral') then 'law_society'
    when regexp_matches({{ column }}, 'philosophy|religions|fallacies|psychology') then 'arts'
    else 'other'
end
{%- endmacro %}

{# Subject of a benchmark → difficulty 1 to 5, by the level in its name. #}
{% macro subject_difficulty(column) -%}
case
    when regexp_matches({{ column }}, '^elementary') then 2
    when regexp_matches({{ column }}, '^(high_school|conceptual|gaokao)|nutrition|miscellaneous|global_facts|marketing|management') then 3
    when regexp_matches({{ column }}, '^(professional)|abstract_algebra|college_(mathematics|physics)|formal_logic|econometrics|machine_learning') then 5
    else 4
end
{%- endmacro %}
