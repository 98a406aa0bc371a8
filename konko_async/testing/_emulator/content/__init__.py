"""What the emulator's model says: text, embeddings, log probabilities, JSON for a schema."""
