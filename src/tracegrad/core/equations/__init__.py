"""The equations of Park et al. (2023), and what each kind of synapse is to them."""
