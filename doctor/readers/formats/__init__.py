"""Binary formats that several readers share."""
