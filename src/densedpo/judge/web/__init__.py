"""The labelling studio: a web app on `judge.studies`. It runs without torch and takes nothing from other hosts."""
