"""What a card gives: our sampling, features and grids beside the bare network and the peers'."""
