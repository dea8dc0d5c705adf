"""The embedded text-to-image base: trained, judged, described; and the embedded data of LoRAs."""
