"""Services on ledgerq, each as it would stand in a repository of its own."""
