"""How the tokens of a reply are chosen: one record for the API, the wire and the engines."""

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """The sampling parameters of one reply.

    Attributes:
        temperature: what the logits are divided by; 0 takes the likeliest token.
        top_p: probability mass of the tokens to choose from; 1 keeps every token.
        top_k: number of the tokens to choose from; 0 keeps every token.
        seed: always set, so that another worker can continue the reply with the same choices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    seed: int = Field(ge=0, lt=2**64)
