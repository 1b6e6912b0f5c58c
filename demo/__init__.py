"""The page: sentences in, moments of a library of videos to look at."""
