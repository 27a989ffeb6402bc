"""Results as a page to look at: video with skeletons on it, timeline, curves, tables."""

from posekit.view.build import ViewOptions, page_of, page_path, write_page
from posekit.view.pages import check_name, write_pages
from posekit.view.reader import read_lines, read_results
from posekit.view.results import Origin, Persons, Results, ResultsBuilder

__all__ = [
    "Origin",
    "Persons",
    "Results",
    "ResultsBuilder",
    "ViewOptions",
    "check_name",
    "page_of",
    "page_path",
    "read_lines",
    "read_results",
    "write_page",
    "write_pages",
]
