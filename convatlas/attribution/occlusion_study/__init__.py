"""What a grey square over each part of an image changes: figure 7 of Zeiler & Fergus."""
