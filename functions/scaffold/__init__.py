"""What `upwell new` writes."""
