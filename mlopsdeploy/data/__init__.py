"""Data in and out: files, pictures, databases, object stores."""
