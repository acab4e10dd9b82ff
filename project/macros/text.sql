{# Text in SQL: all of these take a column (or any SQL expression) and give an expression. #}

{# One line of text in lower case, for comparing. #}
{% macro normalised(column) -%}
lower(trim(regexp_replace({{ column }}, '\s+', ' ', 'g')))
{%- endmacro %}

{# Blanks at the ends cut, three and more line ends made two. #}
{% macro tidy(column) -%}
trim(regexp_replace({{ column }}, '\n{3,}', E'\n\n', 'g'), E' \n\t\r')
{%- endmacro %}

{# HTML tags out. #}
{% macro without_tags(column) -%}
regexp_replace({{ column }}, '<[a-zA-Z/][^>]*>', '', 'g')
{%- endmacro %}

{# Share of Chinese characters among the characters that are not blank, 0 to 1. #}
{% macro chinese_share(column) -%}
coalesce(length(regexp_replace({{ column }}, '[^\x{4e00}-\x{9fff}]', '', 'g'))
    / nullif(length(regexp_replace({{ column }}, '\s', '', 'g')), 0)::double, 0)
{%- endmacro %}

{# zh where a fifth of the characters is Chinese, else en. #}
{% macro language_of(column) -%}
case when {{ chinese_share(column) }} >= 0.2 then 'zh' else 'en' end
{%- endmacro %}

{# Text that sells something. #}
{% macro looks_like_advertising(column) -%}
regexp_matches({{ column }}, '(?i)(buy|order) now|click here|promo code|limited time offer|free shipping|guaranteed,? subscribe|点击链接|立即购买|限时优惠|加微信|大礼包')
{%- endmacro %}

{# Text between friends, gossip, cries for help: nothing to learn from. #}
{% macro looks_like_chatter(column) -%}
regexp_matches({{ column }}, '\b(lol|pls|thx|lmao)\b|(?i:anyone up for|you won''t believe|fans are going wild)|拼车|谁来谁举手|约吗')
{%- endmacro %}

{# Text that points at a source the reader does not have. #}
{% macro points_elsewhere(column) -%}
regexp_matches({{ column }}, '(?i)(according to|in|from|based on) the (text|passage|excerpt|paragraph|article)|as (shown|described) (above|below)|the (text|passage) (says|states)|根据(上文|短文|材料|文章)|文中提到')
{%- endmacro %}
