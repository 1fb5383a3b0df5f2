"""Pages of text, tables and figures that are one file and need nothing else."""

from tp_ext.page.charts import Line, Series
from tp_ext.page.document import Page, write_page
from tp_ext.page.values import Code, Share, large, number

__all__ = ["Code", "Line", "Page", "Series", "Share", "large", "number", "write_page"]
