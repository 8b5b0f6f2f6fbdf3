"""The processes that train one run: how they were started, what they agree on, how parameters are cut over them."""
