"""Console logs: what a terminal, `nohup`, Slurm, torchrun or the web UI kept of standard output and error."""
