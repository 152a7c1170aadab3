"""What a run is: its events, its state, its series."""
