"""Speed and spread, measured: ratios against a named baseline in the same run."""
