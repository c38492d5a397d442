"""`mlopsdeploy models`: list, inspect, compile, quantise, compare, verify; a module for each."""
