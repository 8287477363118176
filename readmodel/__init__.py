"""The read models: one file a view, with its tables and the projection that fills them."""
