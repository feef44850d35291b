"""Whether this machine can do the work: looked at from outside, quickly, each finding with its mend."""
