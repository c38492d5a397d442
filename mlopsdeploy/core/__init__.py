"""What a model is: a task on a runtime, found by name, fed in planned batches."""
