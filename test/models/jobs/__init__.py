"""Three jobs with known truth: payments, machines, triage. See README.md beside this file."""
