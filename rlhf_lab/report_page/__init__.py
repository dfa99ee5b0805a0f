"""The parts of report.html: what is read (`run_data`), how a number is printed (`text`), charts, sections, page files.

`rlhf_lab.report` puts them together. Nothing here trains, evaluates or asks the network.
"""
