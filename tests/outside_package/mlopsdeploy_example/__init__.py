"""Linear maps in .npz files, and tasks that find unusual rows and forecast with them."""
