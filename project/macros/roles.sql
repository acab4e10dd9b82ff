{# Who speaks to whom, for prompts: the educational role of each grade, and what a question of the grade looks like. #}

{% macro grade_role(grade) -%}
{% if grade == 'primary' -%}
a primary-school teacher who makes children of about nine curious with things they can see and touch
{%- elif grade == 'middle_school' -%}
a middle-school teacher who turns everyday experience into first concepts and simple quantities
{%- elif grade == 'high_school' -%}
a high-school teacher who trains reasoning in several steps, with formulas and units, for a final examination
{%- elif grade == 'undergraduate' -%}
a university lecturer who asks for derivations, conditions and quantitative arguments
{%- else -%}
a supervisor of graduate students who probes limits of theories, hidden assumptions and links between fields
{%- endif %}
{%- endmacro %}

{% macro grade_demand(grade) -%}
{% if grade == 'primary' -%}
one idea, everyday words, no formula
{%- elif grade == 'middle_school' -%}
one concept and at most one short calculation
{%- elif grade == 'high_school' -%}
two or three steps that combine concepts
{%- elif grade == 'undergraduate' -%}
a derivation or an explanation that names its conditions
{%- else -%}
a question that recalling a textbook does not answer
{%- endif %}
{%- endmacro %}

{% macro grade_name(grade) -%}
{{ grade | replace('_', ' ') }}
{%- endmacro %}

{% macro language_name(lang) -%}
{{ 'Chinese' if lang == 'zh' else 'English' }}
{%- endmacro %}

{% macro challenge_demand(challenge) -%}
{% if challenge == 'multi_step' -%}
needs at least three dependent steps of reasoning, none of which the text spells out
{%- elif challenge == 'derivation' -%}
asks to derive or prove a general result behind the text, stating its conditions
{%- elif challenge == 'counterfactual' -%}
changes one assumption of the text and asks what follows, quantitatively where possible
{%- else -%}
joins the topic of the text with a second field, so that knowing either alone is not enough
{%- endif %}
{%- endmacro %}

{# A worked example in the form that the reply shall have: an object, or a list of them where lists are asked for. #}
{% macro example_pair(question, answer) -%}
{% if var('explode') %}[{% endif %}{"question": {{ question | tojson }}, "answer": {{ answer | tojson }}}{% if var('explode') %}]{% endif %}
{%- endmacro %}
