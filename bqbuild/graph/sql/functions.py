"""What DuckDB's functions are like: which are functions of their arguments, which aggregate, which depend on order.

Written down from DuckDB 2.0; a test compares the lists with the catalogue of the installed one.
"""

from __future__ import annotations

from sqlglot import exp


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOLATILE = _words(
    # clocks
    "now current_date current_time current_timestamp current_localtime current_localtimestamp get_current_time "
    "get_current_timestamp localtime localtimestamp today transaction_timestamp current_datetime ago "
    # chance
    "random rand randn setseed uuid gen_random_uuid uuidv4 uuidv7 reservoir_quantile"
)
"""Clocks and chance: allowed where the model says `volatile: true`."""

FORBIDDEN = _words(
    # state outside the query
    "getenv getvariable nextval currval setval current_setting current_database current_schema current_schemas "
    "current_catalog current_user session_user user current_role current_query current_query_id current_connection_id "
    "current_transaction_id txid_current in_search_path version current_version stats "
    # effects, and SQL made of strings
    "sleep_ms write_log query query_table json_execute_serialized_sql vector_type"
)
"""What no model may call: it reads or changes something that is not an input."""

WITHOUT_PARENTHESES = _words(
    "current_date current_time current_timestamp localtime localtimestamp current_user session_user user current_role "
    "current_catalog current_schema"
)
"""Functions that are called by their bare name."""

TABLE_FUNCTIONS = _words("unnest range generate_series json_each json_tree repeat repeat_row explode")
"""The functions that may stand in a FROM: those that make rows of their arguments alone."""

FILE_FUNCTIONS = ("read_", "parquet_", "sniff_", "glob", "arrow_", "pandas_", "python_", "seq_scan")
"""How the names of functions begin that read files and memory."""

AGGREGATES = _words(
    "any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last "
    "arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and "
    "bool_or combine_aggr corr count count_if count_star countif covar_pop covar_samp decimal_average entropy favg "
    "first fsum geomean geometric_mean group_concat histogram histogram_exact json_group_array json_group_object "
    "json_group_structure kahan_sum kurtosis kurtosis_pop last list listagg lttb mad max max_by mean median min min_by "
    "mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 "
    "regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg "
    "sum sum_no_overflow sumkahan var_pop var_samp variance variant_group_object weighted_avg wavg"
)

ORDER_FREE = _words(
    "approx_count_distinct bit_and bit_or bit_xor bitstring_agg bool_and bool_or logical_and logical_or count count_if "
    "countif count_star histogram histogram_exact mad max median min quantile quantile_cont quantile_disc "
    "percentile_cont percentile_disc regr_count approx_distinct bitwise_and_agg bitwise_or_agg bitwise_xor_agg "
    "hll grouping grouping_id"
)
"""Aggregates whose result cannot depend on the order of rows. All others can: by ties, or by rounding."""

EXACT_ON_INTEGERS = _words("sum avg mean")
"""Aggregates that round only where their argument is a floating-point number."""

MACROS = {
    "json_group_array": "CAST('[' || STRING_AGG(CASE WHEN {0} IS NULL THEN CAST('null' AS JSON) ELSE TO_JSON({0}) END, "
    "',') || ']' AS JSON)",
    "json_group_object": "CAST('{{' || STRING_AGG(TO_JSON(CAST({0} AS VARCHAR)) || ':' || CASE WHEN {1} IS NULL "
    "THEN CAST('null' AS JSON) ELSE TO_JSON({1}) END, ',') || '}}' AS JSON)",
    "geomean": "EXP(AVG(LN({0})))",
    "geometric_mean": "EXP(AVG(LN({0})))",
    "weighted_avg": "SUM({0} * {1}) / SUM(CASE WHEN {0} IS NOT NULL THEN {1} ELSE 0 END)",
    "wavg": "SUM({0} * {1}) / SUM(CASE WHEN {0} IS NOT NULL THEN {1} ELSE 0 END)",
}
"""Aggregates that are macros, and so can't be given an order: what they stand for."""

RANKS_BY_ROW = _words("row_number ntile lag lead")
"""Window functions that tell peers apart, so that the window's order must be total."""

PICKS_BY_FRAME = _words("first_value last_value nth_value first last")
"""Window functions that pick a row of the frame, so that the order inside the frame must be total."""


def function_names(node: exp.Expr) -> frozenset[str]:
    """All names in lower case by which a function may have been called; sqlglot gives synonyms one class."""
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return frozenset({node.name.lower()})
    if isinstance(node, exp.Func):
        return frozenset(name.lower() for name in node.sql_names())
    return frozenset()


def is_aggregate(node: exp.Expr) -> bool:
    """Whether a node is a call of an aggregate function (or of a window function: only OVER tells them apart)."""
    return isinstance(node, exp.AggFunc) or bool(function_names(node) & AGGREGATES)
