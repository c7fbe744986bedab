"""Run directories: where the files of one are, which there are, and what each says of its origin."""
