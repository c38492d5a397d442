"""The languages that there are codes for."""

from __future__ import annotations

_LABELS_OF_LID_176 = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb "
    "ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom "
    "gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw "
    "ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap "
    "nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco "
    "sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh"
)
LANGUAGES = tuple(_LABELS_OF_LID_176.split())
"""The codes of all that fastText's identifier, lid.176, can find."""

# Written alike, so that nobody, fastText neither, tells them apart by a sentence.
ALIKE = {
    "nb": "no", "nn": "no", "hr": "sh", "sr": "sh", "bs": "sh", "ms": "id", "yue": "zh",
    "wuu": "zh", "sco": "en", "simple": "en", "als": "de", "bar": "de", "gl": "pt", "ast": "es",
}  # fmt: skip
