"""A small knowledge base on ledgerq: documents are split, stored, indexed and searched."""
