"""One module, compiled by several versions of Python, packed: `base64.b85decode`, `zlib.decompress`."""

from __future__ import annotations

__all__ = ["COMPILED", "SOURCE"]

SOURCE = """\
import os, sys as system
from . import a
from ..b import c, d as e
from f.g import *
import h.i
try:
    import j
except ImportError:
    j = None
def function(argument=(1, 2.5, 1 << 70, 1j, b"bytes", "h\\u00e9", ..., frozenset((3,)))):
    import hidden
    return lambda: argument[1:2]
class Class:
    attribute = {1, "two"}
if __name__ == "__main__":
    import main_only
"""

COMPILED = {
    "3.9": (
        "c-n1J&5qMB5cW7}H*M2yyF~~%aV>|62UvAiLI`o`1tf$IL}|zU0Vi4PM5rrq+C}gb9JuXs@D_f9-jKL)VkV`cpmpTW6MKHXZ|t<&"
        "ZHt337ypeG&2yUW8vzOgBh+pMB~fBvf-F=a2n?}d8d*~{vm+G&`!r4K<<7UQI+t;6#VUR!^1GqX-OU>i{2{3LwaDdTLHUj_!WOo%"
        "gR$;m_X-x#0<ee2*PxD{3GCzGTHxSHs=glJ$vbJk)_G6V3Bn688g7~ObPI$d@Q`jLThhba1M<$J<xW|6ZW@P5!_B|Sf1Ei!pKVI*"
        "s(`H3_nYwuwrtMfz>y0Cf2O;`Z2}ZVe1y+}s8frsBO(?~?X3;ws3Awj1YbB-ev<bEMFdmJWh{H#2pjPNK1%Jf%5+}V8^6MAe6jJ-"
        "sY$aLrV~!`lha;4SXBAETo?KH)D-j7xXF0$L|tgE)`&VENz2!7dkmb<@_pM5fsghH*u#aK6e6(4w~3JZSHkkOP}Bf=9VBHXRe%A@"
        "_l+keb*`4Ag7QN#rM)Og@-)*);@e4*6<8Uz<0N@srDk`cT4`C@^{guOj^STmnzm2S<<iW7`1Nb<lr3H7NirIGSvViKjq^={QfFRR"
        "cJ(l`EXp?OAFYDLc&UQbc<o{3;jQmH&n^mEKDD;6zO}H$rOur$>ju<S?0}`T>Ow_sHn-8Eo7u^lux@vcpbs(hsgn^%vSMh%!=NW4"
        "_zef2ufP"
    ),
    "3.11": (
        "c-n1J&2JM&6n}4L?W{i*$94+|Tv7o-=3uTp&=iCaaA<^7REfQ8H=cED*bkUpD|Mtwdk8Arasb80UP?hoh(94!tDdc%R&(N-o2&F-"
        "aq7I?*aVAtZ+|;)-uIjN-89Q^Vs%amGtJT83ig2mM-Qz0kCw(Y&OGMpmX5%6UhoQj(JJ~&mVsnb^h)<~+p<+D<-4j?4b1c4nioJ6"
        "loeXl`w-~c@DsZa+o&Qgaf6q5nOAsK1NRg+Un0O8oR!oyy2wxMqE*x27Vz3G@a319ve0H0*0NjY^@o`(idoi%)!_I&(AR1ll49eK"
        "BDPSXb4ZpgO=3qPr<2QDc_96oS2#HheF&ed$+r>dH;1ts4Vc>X{(RkT;UR51c*2kp(BaW(1;5ZBk%I?6<5N)0XuF0gi){#896$Lq"
        "$!|r$3*3ii<f%Q;R_7+UCnXTNg4fiN;fSq)?*?&15t9$P-+nawU|jVaf0H}wJ7>FtpcD7QpncT~JB}Bvw`aPla)@dQrU~qQJ-R+}"
        "MmL^+lfV(=(<=7*oV!6w6J#lt$()k^xF$^Xlg2Exs2@L{=v*Ex)$7T3L}_JhJZF7P)E2v*U1T<`eQ?22(^8L3b>7n~#+m9_mxUXi"
        "6Gd6)lEvHMhB`BBJ8*p0wq@D2{g4kl+E;D+@xbwpH6<sGMSpV;yP`rZQ2MNP(VPKE(HR=uoYHz@@8(`PxkHruG_!tH9;YAJcB?71"
        "Fp?}9MzW|Nc6|wgE>Pm8C}dAD6I{u<?JdcA?Y_jG#0Ro+$A1)x_@)q{kfp8&cibRy<7|R?QD2g0DN7Uv-f*FCb+dV|>*A6U>CU5)"
        "!U;pf6jsKc;}mMioKjdFe~weAk7t}hImu|EF*H-Xn%vH5nl3dafM|Y%)Tk!ciKql~I-R~hvobnA+J2?Iy8W(y&^+iL^v8Ga{Sp2Z"
        "j!*wE0S&)egd*ZOinR#;68tw8-?PfooqyQsn60Mz7voQP!azT(G!ebkU-gUd+tL;G7O$}X0g=TdE&"
    ),
    "3.13": (
        "c-mc3&ubGw6n?Y2*=~~Erb(-|Q8fOzL?Iwl6ltqP1Z|)QqvD}BZj(*Avf0%)8zemy1@Tx9La*NR=Gl|Qf1uz+rWL*B7KxyEa%R^^"
        "?H<0JdB48*-h4yH$-%y_vHvpi4Btz51r#W$1Ezn18r7&?*Ov@5DnJdIsb`i<G?&KEs;C&Vp1r75(&!xKkEbUaZJ9SlEt;h{ny2>4"
        "_$i>y1(H(DTC;?Xm*FA7!Zb)vp$v55f|h!5Vx>rnm+t|%8A$7uu+%1PauQaYvBWAF3EC%MdA0@f`Uz-}YN@Z1m-~vNN(6EHs$NwS"
        "q#;OCS<bdo0^@3s*}nm!2mgJ8D_r?kd$Gs6x;(9Yd|RuMzB)F@zCcBwjKgUO_to+Ug*t@f4#)vDIiPh0s`@gLgG*OglPYsu!UA~("
        "w^goYKpL+Kqaop~8pU$4-R*c`%vGHYVRUMbdcv9u+|Fv#T@d9~H*Cay6xQZ~sNn{Dp*Hf_GJ)qM{MvxcOIwRu?#uZhq#H8V{ASY&"
        "s~V~(EUHjN{Gfu4{0VDR7E6C+!tJ!uu2I~}S9XjFP8=Le8>#77qNWu<xe}=&g1S=Dc?}I}V5Xg^nj&*8a5?WQvSebR$4??u-7ZV7"
        "#aQTeJjO(hu};+N2I_1x_PFZ?e?0}pT0ZhP@Ix<*q#^6ZG5V|B*b|2s<FOn24ffB*8B5A1Z6`zG)Cio>rk=y+VrldGX71U|G;S(c"
        "hU~%hL&mC;LW{W2d5;TILhN+}pn6Y1R#E8&&E(<<y;W-qeXZsTvL?twk-yn_6k&WFF+!1TVYKdr+>4X-ri~m?nc0LW3WMH(X62Ko"
        "dsx78@~XtZ1Ep7;5b_nKzd+$D%<MsN7jgqlC(f>64@{Vz**d-T<c;>`#ykJR<hH+a>-NWJ=kVPhpplb5O+t=-2MOQw{EPKZ`plj&"
        "HPFE*{~8p)njA`(^VzbWE-Du1H&-%wZ7ddGyI?Jr_3arV@ed?;_Ur"
    ),
    "3.14": (
        "c-mc3&r2IY6n?Y2SvSeXn56!$jp8Y`gn|~NwYDOHfg)vEq!%65WTRU)yLNVh#FLa#dh}Gh_NKS~3AO$M9(s^bu~%=3LZzq9>>3+g"
        "*thfMd*A!D-^2D)0$QGOtJ6d-ehRYzi-1uHSoB3qSwvVVsk0i>^0262wG^AxnLgXbjJ%A|O7SO3K8jATWPfxrnJIWN+>UkJh7BBF"
        "XdeQc9z#*7QDYS0L^rsIr8_|&$!@^rm=d9^V<Cf6<L>|}Z2<S9j9He&Xc*)>2n#74D!Rn-;)a<6@M_$FXX*ersL*jLlgt$mM^-`M"
        "sLWACIwQ+bdhKNcZarr&f|&R$HJBaLRdHI`+bNb&ON4Ap0vA2PST{>rMe`sAQN$p|FcefOIdiv`E15aT>=I@IZNMAA@Tl*9fZ(C0"
        "r;>OoW9N2+&kc(%*K4-N0tswztyWxZaAU%?YD*PslJ`~XUYR+*SDbMDvgHPo#U^G7LJ$|`Y6CXMx2C^7zmR1_Qhmj#RBW%H(4@Ga"
        "9WqdstPWC1;zlzm&0MP@Frz$&TIMJ@xUUV;^j+~NP4PSk#j^kmVGyE8F;xfvJyw{86&Ay)m{a4iY1aw@uCg_sCc>YjbAu4is@a6_"
        "1R*uQQg`LqB;-Tga<7pzAytP4%ym55^TkEnVvIUVb!PKULIP$nr%Z0{0z$&{VY}gQG}kmKIhS0(XE?}YH)l2zpGr|&E?k1>!E!u8"
        "+*s?FS^=F(0Tgmv@x=f^BjCC)%&u{uatRzQQ5iwC(6PB%EiQ9)rRZ?9!qI!4EY((h%4R6_DUVmFzixYh&BA3z?R83KJS^{fZsX1f"
        ";`c|}nWQ7amBI*Isa_Q!bOJrckUoLlBgh;=;!IId>QFP!bm-~b8s1vlR<>uqJ3n%}&i?DSd;Wgc{3R%8=#P$2|2YWrTTOmh|E2aG"
        "YxmAo(E6^<(qQB+1(Z54%#TyDO6qSQoBgIuWnniPpL(F~4j^Iw0fYndYX"
    ),
    "3.15": (
        "c-n1J&rj1(9RI$y>$<IDjDmp?V8p~Y4okqqAVHK6!ib5XM2!c?vuqu!b}hcwg^Uv#6FqV=oISzKKS6?j00$4`0l_P`5lAGSd~aof"
        "#3udpec$K%^V9EqTQUyUp5k?*#hiWTu+HB_n2Q#GhF^tBi^xO;eMX^5A1q3yROp;hsX7y-8n?le3wQ2GeWCYVn&=5nBUI;cikUPc"
        "rfNn_ZJ})d%(f8}78}-vks0fPH;AST;7q&=%*2Qkvb236ZR+=5@=l`wnJ{C4cFaWwLA?F2kW`_l3a*deP`wwPj8@=*+zS<yOPz=$"
        "ImD2alNc&8R1(I}a+qCtT!(+2#v>ZxpQU<W)0)grmEG-p5nb~TeF@?$!{ODHN|KMB1D^!(Nwh)8Nd(=LSA-fOw41{i5~1^8!cgYQ"
        "g$JUs6A^hLyq|81-ZhIX*Q&M`P(iFSrJ7%<Gi}_ps!Jtnf@R7zuNXMKmmhciqUF+we2deCgfR{m?_gtebL#WMvr9qLic>1t9`7^3"
        "FG#y^6eY`9B7&IKN=nj~n?dz3&w-LYOl0?zEJ^)u!sY^HFBfP5C^C8C#Uz!*^5i9|m=cYMUzd|vWXiQDWpc3U6Hy|kG7V$Ts@fQ{"
        "IL1}KRCC2y$M|i{axa+_#$|`lz;!&^^Z7;03IgIR)dHJ!VN3%naEkcv9mTkrz1eSbI%2dSDFzb?e1!dU$Hw$V{KIVMXEasdJy?#1"
        "u^YKQr;<Y_VhM5vlYHJkty89Q2<$2YB2-{#i3ks(G!2`{<@_>}D|v^Z3PZ11Vz#>ClVF+<pRib&_-nRD?Vzc4*j|^2j5W*qo?E{$"
        "0{{P^Ium4wn_@Gl%i&Z;2pvQB5u}cx=Md5d5N}8_N**YBLxt|1&D)!+ThdnHtMkp+arWk(?fQGSUYvu327jpt^_~KUpK{{U+7G$s"
        "Na;M4LCIV+QlJ^<oJ#I%`uoWSuaf*tMYCU&NdtC_*yMn`(~mg*0m>Zm_y"
    ),
}
