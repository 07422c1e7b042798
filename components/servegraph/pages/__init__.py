"""HTML pages: one frame and one set of figures (bars, curves) that every report uses; a page is one file."""
