"""Linear maps in .npz files, and a task that finds unusual rows with them."""
