"""`python -m jcs_ct` is the same as `jcs`."""

from jcs_ct.cli import main

if __name__ == "__main__":
    main()
