"""Building the paper's data sets: questions -> teacher's responses -> verified rows, in a file with a report."""
