"""Private data in conversations.

- `step`: the cleaning step, and the search of any text
- `keys`: keys of services, private key blocks, web tokens
- `addresses`: mail and IP addresses
- `numbers`: bank accounts, payment cards, phones
- `spans`: where something stands in a text, and whether it stands alone
"""

from vicuna.data.privacy.step import find

__all__ = ["find"]
