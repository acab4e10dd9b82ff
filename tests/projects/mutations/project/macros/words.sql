{% macro about(topic) %}the country {{ topic }}{% endmacro %}
{% macro says_something(column) %}length({{ column }}) >= {{ var('min_chars') }}{% endmacro %}
