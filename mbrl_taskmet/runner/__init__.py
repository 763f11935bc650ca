"""What agents and decision tasks share on the host: commands, run directories, records, checkpoints, pictures."""
