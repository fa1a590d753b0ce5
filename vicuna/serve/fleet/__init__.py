"""Workers and controllers: what they say to each other, who takes a request, how a reply outlives its worker."""
