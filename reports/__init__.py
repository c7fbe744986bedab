"""Reports: run directories in, tables, figures and pages out. Imports nothing else of ours."""
