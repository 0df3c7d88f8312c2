"""Search for hyperparameters with Optuna: spaces, a study on disk, seeds as repeats, and what was found."""
