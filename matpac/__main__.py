"""python -m matpac"""

from matpac.cli import main

if __name__ == "__main__":
    main()
