"""`mlopsdeploy package`: what an operator needs, written from the YAML that runs here, and checked.

`command` makes a `Plan` of the settings, with the model as `packing` puts it there, the wheels
that `lock` pins and the numbers that `sizing` measures; `targets` has its files written, by a
module for each kind; `checks` runs the checker of each kind of file.
"""
