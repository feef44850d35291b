"""CapFilt: turn a scraped, noisy image-text corpus into a clean one, and train the next model on it."""
