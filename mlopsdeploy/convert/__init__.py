"""From the format a model was trained in to one that runs lean, each step with a parity proof."""
